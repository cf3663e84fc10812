# The configuration: what may be written, how it is read, what is wrong with it. Import from the modules.
