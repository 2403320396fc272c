"""The scale policy: at which resolution an elastic network looks, per image and block (paper, Equation 5)."""

from elastic_cnn.policy.scores import BlockInfo, PolicyRecorder, block_info, record_policy, scale_policy

__all__ = ["BlockInfo", "PolicyRecorder", "block_info", "record_policy", "scale_policy"]
