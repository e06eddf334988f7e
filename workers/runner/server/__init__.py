"""`flo executor`: executes attempts at runs that workers elsewhere send it over HTTP.

Read `flights.py` for the life of an attempt here, `app.py` for the routes, `words.py` for what is said.
"""
