"""What is measured, and who serves it: Prometheus, Alertmanager and Grafana.

* ``recorder``: the nodes' series; ``history``: what a Prometheus holds of them, with its ``rules``
* ``tsdb``, ``promql``: samples in memory, and expressions over them
* ``servers``: either ``embedded`` and ``alertmanager`` in this process, or ``processes`` of the real
  ones, which read the history by ``remote``
"""
