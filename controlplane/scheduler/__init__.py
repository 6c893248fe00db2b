"""
Which node a pod runs on: queue, snapshot, filters, scores.

Making nodes fit (scaling, draining) does not belong here.
"""
