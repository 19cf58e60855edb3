"""Move traffic from an old load balancer to this program's by weighted DNS: records, rules, reads, the watch."""
