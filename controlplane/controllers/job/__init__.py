"""
Job → Pod: run to completion, so many at a time, with a limit on failures.

When a Job is to run is the CronJob controller's business, not this one's.
"""
