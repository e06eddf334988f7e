"""Flo as a function of AWS Lambda: the engine and the modes of `flo executor`, asked one attempt at a time.

Read `words.py` for what a worker and the function say to each other, `function.py` for the life of an attempt here.
`workers/lambda_handler.py` is the way in for AWS's own runtime; `__main__.py` is a runtime of ours, which streams.
"""
