"""Room of the admin port: what an operator may ask and order over HTTP."""
