"""Environment variables that give a worker its place among the processes that train together.

They are not called RANK and MASTER_ADDR, as torchrun does: libraries that find those create process groups.
"""

RANK = "EFLM_RANK"
RENDEZVOUS = "EFLM_RENDEZVOUS"  #: host:port where the processes meet
