"""What the notebooks begin with, and what shows their studies, exercises and pages."""

from nic_helpers.course.begin import EXAMPLE, PROFILES, Run, begin, parameter
from nic_helpers.course.environment import check_environment
from nic_helpers.exercises import check, hint

__all__ = ["EXAMPLE", "PROFILES", "Run", "begin", "check", "check_environment", "hint", "parameter"]
