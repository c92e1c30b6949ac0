"""Person re-identification with token-sparsified vision transformers.

Each verb of the command line is one call: `reid.run.train`, `reid.run.evaluate_model`,
`reid.run.extract_features`, `reid.visualize.visualize`, `reid.reproduce.reproduce` and
`reid.demo.demo`.
"""

from reid.errors import UserError

__all__ = ["UserError"]
