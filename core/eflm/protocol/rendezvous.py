"""Environment variables with which the parent starts the workers that train together.

They are not called RANK and MASTER_ADDR as in torchrun, because libraries that find those create process groups.
"""

RANK = "EFLM_RANK"
RENDEZVOUS = "EFLM_RENDEZVOUS"  #: host:port of the store through which the processes find each other
