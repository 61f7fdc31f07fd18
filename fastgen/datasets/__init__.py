"""Ordinary data sets as class folders: what is where, who trains and who tests, and the folder that is written."""
