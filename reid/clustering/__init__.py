"""Neighbours and the k-reciprocal distance of a set of features, sparse and exact."""
