"""A small engine and a show of a failover, for people who meet Understudy for the first time."""
