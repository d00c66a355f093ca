"""assay: does a machine-learning model carry a backdoor in the form in which it will be deployed?"""

__version__ = "0.1.0"
