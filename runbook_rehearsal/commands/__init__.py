"""The site's commands of the rehearsal network, as an operator's automation would offer them.

A stage runs hundreds of them, and starting Python costs more than what most of them do: ``ask.sh``
answers what is only read, ``wind.py`` winds the clock, ``run.py`` does the rest. All are standard
library only, and what costs time to import is imported by the verb that needs it.
"""
