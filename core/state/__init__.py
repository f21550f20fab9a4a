"""Desired and observed state: typed tables, the resources that people write, and the reconcilers that realise them."""
