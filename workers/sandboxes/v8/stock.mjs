// A small stock of cells (whatever a run takes place in) made ahead of time, per memory limit.

/** How many different memory limits are served; the one asked for longest ago is dropped. */
const SIZES_KEPT = 4;

export class Stock {
  #depth;
  #fresh;
  #discard;
  #shelves = new Map();

  /** `fresh(memoryMb)` makes one, and `discard(cell)` frees one that was never used. */
  constructor(depth, fresh, discard) {
    this.#depth = depth;
    this.#fresh = fresh;
    this.#discard = discard;
  }

  /** Takes a ready cell, or makes one when the shelf is empty. */
  take(memoryMb) {
    return this.keep(memoryMb).pop() ?? this.#fresh(memoryMb);
  }

  /** Has a shelf for this memory limit from now on. */
  keep(memoryMb) {
    const shelf = this.#shelves.get(memoryMb) ?? [];
    this.#shelves.delete(memoryMb);
    this.#shelves.set(memoryMb, shelf);
    if (this.#shelves.size > SIZES_KEPT) {
      const [[oldest, cells]] = this.#shelves;
      this.#shelves.delete(oldest);
      for (const cell of cells) this.#discard(cell);
    }
    return shelf;
  }

  /** Puts one more cell on a shelf; answers whether there was room for it. */
  add() {
    for (const [memoryMb, shelf] of this.#shelves) {
      if (shelf.length < this.#depth) {
        shelf.push(this.#fresh(memoryMb));
        return true;
      }
    }
    return false;
  }
}
