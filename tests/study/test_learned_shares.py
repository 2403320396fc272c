"""Shares of the branches that follow a trained network's scores."""

import pytest
import torch

from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.study import learned_shares
from elastic_cnn.study.learned_shares import learn_shares


def shares_of(monkeypatch, blocks, *batches):
    """Of a network with these blocks and scores (N, blocks)."""
    infos = [BlockInfo(f"layer{stage}.{number}", scales, stage) for number, (stage, scales) in enumerate(blocks)]
    scores = iter(batches)
    monkeypatch.setattr(learned_shares, "block_info", lambda network, images: infos)
    monkeypatch.setattr(learned_shares, "scale_policy", lambda network, images: torch.tensor(next(scores)))
    return learn_shares(torch.nn.Identity(), [torch.zeros(len(batch), 3, 8, 8) for batch in batches])


def test_stages_move_towards_the_scale_that_they_respond_at(monkeypatch):
    blocks = [(1, (1, 2)), (1, (1, 2)), (2, (1, 2)), (3, (1, 2)), (4, (1, 2))]
    first = [[2.0, 0.1, -1.0, 3.0, 0.0], [1.0, 0.2, -5.0, -3.0, 0.0]]
    second = [[4.0, 0.3, -0.5, 1.0, 0.0], [1.0, 0.1, -2.0, 0.0, 0.0]]
    found = shares_of(monkeypatch, blocks, first, second)
    # stage 3: the mean score is 1/4 and the mean of absolute ones 7/4, so 1/2 + 1/28, nearest to 1/2
    assert found == {1: (0.75, 0.25), 2: (0.25, 0.75), 3: (0.5, 0.5), 4: (0.5, 0.5)}


def test_the_size_of_the_activations_does_not_count(monkeypatch):
    blocks, scores = [(1, (1, 2)), (2, (1, 2))], [[3.0, -1.0], [1.0, -3.0], [-1.0, 1.0]]
    small = [[value / 1000 for value in row] for row in scores]
    assert shares_of(monkeypatch, blocks, scores) == shares_of(monkeypatch, blocks, small)
    assert shares_of(monkeypatch, blocks, scores) == {1: (0.625, 0.375), 2: (0.375, 0.625)}


@pytest.mark.parametrize("block", [(None, (1, 2)), (1, (1, 2, 4))])
def test_other_networks_are_refused(monkeypatch, block):
    with pytest.raises(ValueError, match="not so: layer"):
        shares_of(monkeypatch, [block], [[1.0]])
