"""The benchmark: this package's layers and networks beside their peers and beside what the machine allows."""

from .config import Config as Config
from .config import Part as Part
from .machine import describe_machine as describe_machine
from .machine import full_float32 as full_float32
from .memory import peak_memory as peak_memory
from .report import Report as Report
from .report import Verdict as Verdict
from .report import verdict_table as verdict_table
from .suite import PARTS as PARTS
from .suite import missing as missing
