"""Attention of sequences of variable length in plain words, for tests without a GPU."""

from __future__ import annotations

import torch


def sequence_by_sequence(query, keys, values, query_bounds, key_bounds, rows, scaling):
    """What the flash kernel of a GPU does, in plain words; of nothing it makes nothing that is of use."""
    outs, weights = [], []
    for i in range(len(key_bounds) - 1):
        one = query[query_bounds[i] : query_bounds[i + 1]].transpose(0, 1)
        key, value = (each[key_bounds[i] : key_bounds[i + 1]].transpose(0, 1) for each in (keys, values))
        assert one.shape[1] == rows and key.shape[1] > 0
        scores = one @ key.transpose(1, 2) * scaling
        outs.append((scores.softmax(-1) @ value).transpose(0, 1))
        weights.append(scores.logsumexp(-1))
    return torch.cat(outs), torch.cat(weights, dim=1)
