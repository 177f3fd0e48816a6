"""A network to practise promotions on: it knows the chain, and nothing of how it is judged.

* ``world``: clusters, the clock that runs ahead, and the events everything else is computed from
* ``chain``, ``telemetry``: heights, votes, rewards and metrics as functions of seed, events and time
* ``nodes``, ``rpc``, ``views``, ``node_config``, ``templates``: the validators, their TOML, their RPC
* ``forge``, ``commands``, ``control``: the forge, the site's commands, and what they ask
* ``assets``: the previous release and the snapshots that are staged for a rollback
* ``servers``, ``backends``, ``processes``, ``embedded``, ``alertmanager``, ``rules``, ``promql``,
  ``tsdb``, ``remote_write``: Prometheus and Alertmanager, real or embedded
* ``faults``, ``effects``: what can be broken, and what must notice
* ``layout``, ``loopback``, ``network``: files, listeners, and the whole of it
"""
