"""A network to practise promotions on: it knows the chain, and nothing of how it is judged.

* ``chain``: clusters, their clock and events, and heights, votes and rewards that follow from them
* ``nodes``: the validators and their RPC; ``signing``: what they are to run
* ``telemetry``: metrics under the chain's names, and Prometheus, Alertmanager and Grafana
* ``forge``, ``people``: issues, checks and reviews, and who writes there
* ``control``: the site's commands, started by ``run.sh``, which ``calls`` answers
* ``faults``: what can be broken, and what must notice
* ``layout``, ``loopback``, ``network``: files, listeners, and the whole of it
"""
