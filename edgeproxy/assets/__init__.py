# What browsers are sent of the edge's own; read once, when a process begins.
