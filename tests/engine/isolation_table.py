"""The rows of docs/isolation.md, collected while the tests run."""

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Table:
    denied: list[tuple[str, str, str]] = field(default_factory=list)
    allowed: list[tuple[str, str]] = field(default_factory=list)
    packets: list[tuple[str, str]] = field(default_factory=list)
    siege: list[str] = field(default_factory=list)


ROWS = Table()

_HEAD = """# What a pull request may do, and what it may not

From a run: `make isolation` writes this page (`tests/engine/test_isolation.py`). What a pull request may not was tried as one,
with the preview role's own session and the kubeconfig that a preview makes of production's contract, as if the pull
request's code could say anything; rows that name an administrator hold whoever asks.

* **API server**: a real Kubernetes API server decided, by RBAC (`infra/previews/rbac.py`) or by admission
  (`infra/previews/admission_policies.py`); its words are quoted. Beside these rows `tests/engine/test_preview_shape.py` tries
  every field that its own description of a Deployment and a pod has, and compares what is let in with what a pull request may
  choose.
* **IAM policies evaluated**: moto enforces no IAM, so the policies that the program stored were read back and evaluated by
  `tests/iam.py`; AWS itself was not asked.
* **packets**: the program's own NetworkPolicies on two real nodes, enforced by kube-router in place of the VPC CNI
  (`tests/twin/test_network_policies.py`); pods stand where production's would, a listener where the database would.
* **five at once**: production's release and rollback on real pods while five pull requests try all of this and more
  (`tests/twin/test_siege.py`).
* **declared**: what was checked is that it is declared, and can't be removed by a preview; nothing enforced it in this run.
"""


def words(text: str) -> str:
    """Return the API server's message on one line."""
    lines = [line for line in text.strip().splitlines() if line and not line.startswith("Warning:")]
    said = " ".join(lines).replace("|", "\\|")
    return re.sub(r"^Error from server \((\w+)\): (error when creating \"STDIN\": )?", r"\1: ", said)


def denied(what: str, by: str, said: str) -> None:
    ROWS.denied.append((what, by, said))


def allowed(what: str, by: str) -> None:
    ROWS.allowed.append((what, by))


def packet(what: str, came: str) -> None:
    ROWS.packets.append((what, came))


def besieged(what: str) -> None:
    ROWS.siege.append(what)


def _kept(page: str, title: str) -> str:
    """A section of the page as a former run wrote it; empty if there is none."""
    found = re.search(rf"^{re.escape(title)}\n.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
    return found[0].rstrip() + "\n" if found else ""


def _sections(page: str) -> str:
    """Return the rows that need real nodes: this run's, or the page's own where this run had none."""
    packets = _kept(page, _PACKETS)
    if ROWS.packets:
        lines = [_PACKETS, "", "| TCP from | with the policies |", "|---|---|"]
        packets = "\n".join([*lines, *(f"| {what} | {came} |" for what, came in ROWS.packets)]) + "\n"
    siege = _kept(page, _SIEGE)
    if ROWS.siege:
        siege = "\n".join([_SIEGE, "", *(f"* {what}" for what in ROWS.siege)]) + "\n"
    return "\n".join(filter(None, (packets, siege)))


def write_sections(path: Path) -> None:
    """Put what this run saw on real nodes into the page, and leave the rest of it."""
    page = path.read_text()
    before, _, after = page.partition("## What this leaves")
    before = min((before.partition(title)[0] for title in (_PACKETS, _SIEGE)), key=len).rstrip()
    path.write_text(f"{before}\n\n{_sections(page)}\n## What this leaves{after}")


def write(path: Path) -> None:
    page = path.read_text() if path.exists() else ""
    lines = [_HEAD, "## Denied", "", "| what was tried | decided by | in these words |", "|---|---|---|"]
    lines += [f"| {what} | {by} | {said} |" for what, by, said in ROWS.denied]
    lines += ["", "## Allowed", "", "| what | decided by |", "|---|---|"]
    lines += [f"| {what} | {by} |" for what, by in ROWS.allowed]
    # What stands in angle brackets would be taken for a tag.
    text = "\n".join(lines).replace("<", "&lt;").replace(">", "&gt;")
    path.write_text("\n".join((text, "", _sections(page), _TAIL.lstrip())))


_PACKETS, _SIEGE = "## Packets", "## Five at once"
_TAIL = """
## What this leaves

* Pull requests share one table of places: one may take or free another's place, and by that open a preview too many or
  keep one from opening. Production has its room by priority, whatever the table says.
* On the previews' load balancer a pull request may make a rule for another preview's host name: rules are owned one by one,
  host names are not. Production's names lead to another load balancer, whose target groups no second one can have.
* Previews push into one repository. Its tags are immutable, so none is moved, but a tag can be taken that nobody has yet.
* A pull request can take away a lock in its own folder, and so have its `up` and the clean-up of the same preview run at once.
  What that leaves is its own, named by its number, and the next clean-up finds it there. A forged lock keeps the clean-up off for
  an hour.
* The VPC CNI's default mode lets a new pod's packets pass until its policies have reached the node, a second or two
  (docs.aws.amazon.com/eks/latest/userguide/cni-network-policy.html, strict and standard mode). Production's pods are closed
  at their own end throughout; the database asks for a password.
* A pull request that changes what a preview declares (`infra/previews/manifests.py`, `infra/previews/isolation.py`) gets no
  preview until the change is merged and production is up: the API server admits what the main branch makes, and names the
  field that differs. When production changes it, an open preview gets no new pod until it is brought up again from a branch
  that has the change. So does a Kubernetes version that gives pods a new field by default, or a webhook of somebody else's
  that changes pods.
* A preview's image may be of any size, and a node pulls it: where the disk runs full the kubelet removes images, then evicts
  pods that use more than they asked for, then those of low priority. Production's application asks for what it uses and has
  the higher priority, so previews go first; a node without room for its images pulls none of a release either.
* Calls of AWS's APIs are counted per account: a job that asks ELB without end makes a release's own calls wait (they are tried
  again until their deadline, and then the weights go back). Names are resolved by the one CoreDNS, which a preview's pod may ask
  as often as it likes.
* What a pull request may write it may write, delete and make anew as often as the API server's priority and fairness lets it;
  how often the operator reads a secret follows from that.
* Pods of previews share the node's user namespace: `hostUsers: false` needs a kernel that maps ids on every file system it
  mounts (kubernetes.io/docs/concepts/workloads/pods/user-namespaces), which not every AMI that production may run on has, and a
  pod that asks for it elsewhere does not start. They run without root, capabilities and privilege escalation, under the
  runtime's seccomp profile.
* Every pull request may read the names and labels of all namespaces: who waits for a namespace's deletion lists and watches,
  and RBAC narrows neither to a name.
* GitHub's session names need two characters in AWS, so pull requests 1 to 9 can't take the preview role.
* External Secrets can read every Secret of the cluster, since it watches them all to learn of changes; what it writes, admission
  holds to production's and previews' namespaces and to plain data.
* The release role is an administrator inside the cluster. In AWS it is held to what a release calls, and by a boundary.
"""
