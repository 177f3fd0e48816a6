"""What is measured, and who serves it: Prometheus, Alertmanager and Grafana.

* ``recorder``: the nodes' series; ``history``: what a Prometheus holds of them, with its ``rules``
* ``tsdb``, ``promql`` and what begins with its name: samples in memory, and expressions over them
* ``servers``: the one or the other ``backends``, of ``embedded``, ``alertmanager`` in this process
  or of ``processes`` that read the history by ``remote``
"""
