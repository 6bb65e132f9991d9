"""The operators of networks: a record for each, with its layer rule, its substitute and its link of a chain."""
