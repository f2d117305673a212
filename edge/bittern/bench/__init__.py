"""The bench: what Bittern costs, each figure beside a reference that runs in turn with it.

`suite` lists the rows and their limits; `rows` and `daemon` measure them, with `timing` and `processes`; `result` holds
and prints them; `boards` judges the speed of a Raspberry Pi; `sustained` measures speed and heat over minutes; `chart`
draws.
"""
