"""What provisioning raises."""

from crewship.errors import CrewshipError


class ProvisionError(CrewshipError):
    """Something the platform needs could neither be found nor made; ``hint`` says how to get it by hand."""

    status, title, default_code = 503, "Not provisioned", "not_provisioned"


class PythonUnavailable(ProvisionError):
    """No base image has the Python version that was asked for; ``detail`` and ``hint`` name what can be had."""

    default_code = "python_version"
