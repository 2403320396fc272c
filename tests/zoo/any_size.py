"""What every network must do, whatever its kind: any size of image, no dead weights, checkpointing."""

import torch


def check_training(network, x):
    """Training reaches every weight, and gradient checkpointing changes no gradient. `x`: (N, 3, H, W)."""
    network.eval()  # fixed norms: checkpointing runs them twice
    gradients = []
    for checkpointing in (False, True):
        network.set_grad_checkpointing(checkpointing)
        network.zero_grad()
        network(x).square().sum().backward()
        assert not [name for name, p in network.named_parameters() if p.grad is None]
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-5, atol=1e-7)
    network.set_grad_checkpointing(False)


def check_export(network, x):
    """`torch.export` computes the same."""
    with torch.no_grad():
        exported = torch.export.export(network.eval(), (x,)).module()
        torch.testing.assert_close(exported(x), network(x), rtol=1e-5, atol=1e-6)
