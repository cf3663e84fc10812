"""Capture of clients, training and evaluation of the bot model. Not part of the installed package."""
