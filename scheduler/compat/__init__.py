"""Other systems' APIs, each as a thin layer over Flo's own, so that their clients work unchanged."""
