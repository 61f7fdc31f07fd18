"""DALDA in miniature: its methods, tables and relations on PetWorld and the embedded model.

`python -m repro.dalda --work out/dalda` makes everything and writes docs/dalda; see `__main__`.
"""
