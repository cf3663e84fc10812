"""What the edge says about itself: counters, access log, admin endpoints."""
