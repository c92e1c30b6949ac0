"""Cut-outs of objects that stand in front of people."""

from reid.data.occluders.bank import OccluderBank

__all__ = ["OccluderBank"]
