"""How the site's commands of the rehearsal network are started.

A stage runs hundreds of them, and starting Python costs more than what most of them do: ``ask.sh``
answers what is only read, ``run.py`` asks the network for the rest, which ``control`` carries out.
"""
