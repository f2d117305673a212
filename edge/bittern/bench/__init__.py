"""The bench: what Bittern costs, each figure against a reference that runs in turn with it.

`timing` measures, `rows` says what against what, `processes` starts programs for it, `result` keeps, compares and
prints, `boards` judges a Raspberry Pi, `sustained` watches speed and heat over minutes, `chart` draws.
"""
