"""Flower's settings; what stands here wins over FLOWER_... in the environment, so port and passwords do not.

Whoever can open Flower can read the results of turns, which are the agent's replies: keep it on the loopback
interface, or set FLOWER_BASIC_AUTH (its REST API answers nobody without).
"""

# A task here is a wake-up of a session; ten thousand are enough to look back on.
max_tasks = 10_000
purge_offline_workers = 300
natural_time = True
tasks_columns = "name,uuid,state,kwargs,received,started,runtime,worker"
