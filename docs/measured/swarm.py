"""Tables of a swarm: the demo, faults, and schedules of faults in virtual time."""

from harness.markdown import Columns, Grid, Lines, Measured, Values, shown, table

from measured.kept import rows

DATABASES = {
    "sqlite": "SQLite, the same command at once",
    "postgresql": "PostgreSQL, another stands by",
}
VICTIMS = {
    "participant": "participant that owns nothing",
    "owner": "participant that owns",
    "trainer": "trainer",
    "holder": "relay that only holds",
    "edge": "edge between two",
    "joiner": "joiner",
    "donor": "donor, to others' commits",
    "relay": "relay, the only owner *",
    "coordinator": "coordinator *",
    "swarm": "all islands at once *",
    "everything": "everything at once *",
}


def storm_faults(values: Values) -> str:
    """What struck, by kind."""
    kinds = ", ".join(f"{kind} {number}" for kind, number in values["faults_by_kind"].items())
    return f"{values['faults']}, {values['faults_per_outer_step']:.2f} a step ({kinds})"


def storm_resume(values: Values) -> str:
    """The median, and by kind of fault."""
    kinds = ", ".join(f"{kind} {found['median']:g}" for kind, found in values["resume_seconds"].items())
    return f"{values['resume_seconds_median']:.2f} s ({kinds})"


TABLES = {
    "demo": Measured(
        bench="demo",
        form=Columns(
            head=lambda v: f"`atoll demo {v['overrides']}`".replace(" `", "`"),
            lines={
                "seconds, all of it": "{seconds:.0f}",
                "held-out loss before, nats per token": "{heldout_loss_before:.3f}",
                "held-out loss after": "**{heldout_loss_after:.3f}**",
                "guessing words by their frequency": "{heldout_unigram_loss:.3f}",
                "held-out bits per byte after": "{heldout_bits_per_byte:.2f}",
                "MB sent, by all processes": "{megabytes_sent:.0f}",
                "times less than data-parallel training": "{reduction_factor:.0f}",
                "from the death to the survivors' next commit": "{survived_seconds:.1f} s",
                "from the new start to the head": "{recovered_seconds:.0f} s",
                "from the new start to a commit": "{rejoined_seconds:.0f} s",
            },
        ),
    ),
    "unequal": Measured(
        bench="unequal",
        form=Grid(
            corner="islands; seconds per inner step of the fastest",
            down="{swarm}; {unit_seconds:g}",
            across="{rule}",
            cell="{speed:.2f} ({traffic:.2f})",
        ),
    ),
    "dashboard death": Measured(
        bench="dashboard",
        only=lambda v: v["run"] == "death",
        form=Lines(
            columns={"from `kill -9` until the page says so": "{gone_seconds:.1f} s", "load": "{load}"}
        ),
    ),
    "dashboard": Measured(
        bench="dashboard",
        only=lambda v: v["run"] != "death",
        form=Columns(
            head="{islands:,} islands, {outer_steps:,} outer steps",
            lines={
                "events file": lambda v: f"{v['events_bytes'] / 1e6:,.0f} MB",
                "read at the server's start": "{read_seconds:.1f} s",
                "the whole page, compressed": lambda v: f"{v['page_bytes'] / 1e3:,.0f} KB",
                "from the order to open it to the first chart": "{first_chart_seconds:.2f} s",
                "the server's share of a core, nobody watching": "{cores_idle:.3f}",
                "with watchers": "**{cores_watched:.2f}** ({watchers} of them)",
                "what training beside it can lose": lambda v: f"{100 * v['training_slowed']:.2f}%",
                "load": "{load}",
            },
        ),
    ),
    "coordinator": Measured(
        bench="coordinator",
        form=Lines(
            columns={
                "database": lambda v: DATABASES[v["database"]],
                "lost commits": "{lost_commits} of {commits}",
                "kills": "{kills}, {kills_in_attempt} of them in an attempt",
                "pause, median and worst": "**{pause_seconds_median:.1f} s**, {pause_seconds_max:.1f} s",
                "of it until a leader begins": "{leader_seconds_median:.1f} s",
                "load": "{load}",
            }
        ),
    ),
    "allreduce": Measured(
        bench="allreduce",
        form=Lines(
            columns={
                "links": "{case}",
                "MTU": "{mtu}",
                "payload": "{megabytes:.1f} MB",
                "rates times": "{scale:g}",
                "seconds": "{seconds:.2f}",
                "bound": "{bound:.2f}",
                "ratio": "**{ratio:.2f}**",
                "asked": lambda v: f"{v['asked']:.2f}" if v.get("asked") else "–",
                "told by `--plan`": lambda v: f"{v['predicted']:.2f}" if v.get("predicted") else "–",
                "busiest link": "{utilisation:.0%}",
                "heartbeat, longest": "{heartbeat:.2f} s",
                "participation": "{participation:.2f}",
                "attempts lost": lambda v: (
                    str(v["num_attempts"] - len(v["steps"])) if "num_attempts" in v else "–"
                ),
                "load": "{load}",
            }
        ),
    ),
    "loopback": Measured(
        bench="loopback",
        form=Lines(
            columns={
                "fp32 parameters": "{megabytes:.0f} MB",
                "an all-reduce of two agents": "{seconds:.2f} s",
                "parameters": "**{gigabytes_per_second:.2f} GB/s** of fp32",
                "load": "{load}",
            }
        ),
    ),
    "hostile": Measured(
        bench="hostile",
        form=Lines(
            columns={
                "what one member does": "{attack}",
                "kept": "**{kept:.2f}**",
                "left out after": lambda v: (
                    "–" if v["excluded_after_steps"] is None else f"{v['excluded_after_steps']} steps"
                ),
                "honest left out": "{honest_excluded}",
                "memory": "+{memory_mb:.0f} MB",
            }
        ),
    ),
    "audit": Measured(
        bench="audit",
        only=lambda v: v["measured"] == "found",
        form=Lines(
            columns={
                "sum": "{sum}",
                "its error, of the group's energy": "{share_of_energy:.1%}",
                "found in one step": "{in_one_step:.2%}",
                "within three": "**{within_three:.3%}**",
            }
        ),
    ),
    "audit cost": Measured(
        bench="audit",
        only=lambda v: v["measured"] == "cost",
        form=Lines(
            columns={
                "parameters a second, one core": "{parameters_per_second:,}",
                "core seconds an outer step": "{seconds:.0f} s",
                "of its training": "**{share_of_time:.1%}**",
                "bytes said": "{said_bytes:,}",
                "of its traffic": "**{share_of_bytes:.4%}**",
                "load": "{load}",
            }
        ),
    ),
    "plan": Measured(
        bench="plan",
        form=Lines(
            columns={
                "model": "{model}",
                "links": "{mbit:,} Mbit/s",
                "encode": "{encode_seconds:,.1f} s",
                "reduce": "**{reduce_seconds:,.0f} s**",
                "hold": "{hold_seconds:,.0f} s",
                "adopt": "{adopt_seconds:,.0f} s",
                "utilisation, reducing alone lost": "{utilisation_reduce:.1%}",
                "end to end": "{utilisation:.1%}",
                "sent a day": "{gb_sent_a_day:,} GB",
                "disk": "{disk_gb:,} GB",
                "memory": "{memory_gb:,} GB",
            }
        ),
    ),
    "recovery": Measured(
        bench="recovery",
        form=Lines(
            columns={
                "state": "{state_megabytes:,} MB",
                "donors": "{donors}",
                "links": "{mbit_per_second:.0f} Mbit/s",
                "ideal": "{ideal_seconds:.1f} s",
                "until ready": "{join_seconds:.1f} s",
                "ratio": "**{ratio:.2f}**",
                "of what reductions left": "{ratio_of_left:.2f}",
                "received": "{received:.2f}",
                "donors' inner steps": "+{donor_slowdown:.1%}",
                "outer step": "+{outer_step_slowdown:.0%}",
                "first commit": "{seconds_to_first_commit:.0f} s",
                "load": "{load}",
            }
        ),
    ),
    "storm": Measured(
        bench="storm",
        form=Columns(
            head="{islands} islands",
            lines={
                "outer step, calm": "{outer_step_seconds:.1f} s",
                "faults": storm_faults,
                "kept": "**{kept:.3f}**",
                "kept, beside the storm's untouched steps": "{kept_of_untouched:.3f}",
                "raw (predicted)": "{raw:.3f} ({raw_predicted:.3f})",
                "participation": "{participation:.3f}",
                "resume": storm_resume,
                "rejoin": "{rejoin_seconds_median:.1f} s",
                "attempts per commit": "{attempts_per_commit:.2f}",
                "longest step": "{longest_step_seconds:.0f} s",
                "regressions, unequal roots, lost commits": "{regressions}, {unequal_roots}, {lost_commits}",
            },
        ),
    ),
    "scale": Measured(
        bench="scale",
        only=lambda v: "islands" in v,
        form=Lines(
            columns={
                "islands": "{islands:,}",
                "a beat": "{cpu_ms_per_beat:.2f} ms",
                "an outer step, beyond beats": "{cpu_seconds_per_step:.2f} s",
                "of it for each island": "{cpu_ms_per_step_and_island:.1f} ms",
                "resident": "{megabytes[after_steps]:.0f} MB",
                "load": "{load}",
            }
        ),
    ),
    "growth": Measured(
        bench="scale",
        only=lambda v: "between" in v,
        form=Lines(
            columns={
                "islands": "{between:,}",
                "slope of a beat": "{slope_per_beat:.2f}",
                "slope of a step": "{slope_per_step:.2f}",
            }
        ),
    ),
    "failures": Measured(
        bench="failures",
        form=Grid(
            corner="victim",
            down=lambda v: VICTIMS[v["victim"]],
            across="{fault}",
            cell="{next_commit_seconds_median:.1f}, {next_commit_seconds_worst:.1f}",
        ),
    ),
    "sizes": Measured(
        bench="sizes",
        only=lambda v: v["preset"] in ("1b", "intellect-1"),
        form=Columns(
            head=lambda v: f"{v['parameters'] / 1e9:.1f} billion parameters (`{v['preset']}`)",
            lines={
                "disk of an island": "{disk_gb:,.0f} GB",
                "of it mapped, best kept in memory": "{mapped_gb:,.0f} GB",
                "weights, gradients and moments of its trainer": "{trainer_gb:,.0f} GB",
                "traffic of an outer step of three islands, each way": "{gb_each_way_per_outer_step:.1f} GB",
                "what a joiner receives": "{join_gb:,.0f} GB",
            },
        ),
    ),
    "schedules": Measured(
        bench="simulate",
        form=Lines(
            columns={
                "schedules": "{schedules:,}",
                "a second": "{schedules_per_second:.1f}",
                "virtual hours": "{virtual_hours:,g}",
                "faults": "{num_faults:,}",
                "violations": "**{violations}**",
                "bound on progress": "{progress_bound_seconds:g} s",
            }
        ),
    ),
}


def highlights() -> str:
    """What the README shows: a few rows of several benches."""
    storm, demo = rows("storm")[-1], rows("demo")
    recovery = max(rows("recovery"), key=lambda row: row["state_megabytes"])
    killed = next(row for row in rows("coordinator") if row["database"] == "sqlite")
    schedules = max(rows("simulate"), key=lambda row: row["schedules"])
    steps = [row for row in rows("island") if row["packed"] and row["threads"] > 1]
    ratios = ", ".join(f"{row['ratio']:.2f} ({row['shape']})" for row in steps)
    losses = "; ".join(
        shown("{heldout_loss_after:.3f}", row) + f" ({row['overrides'] or 'int8'})" for row in demo
    )
    lines = [
        (
            f"a storm of {storm['faults']} faults on {storm['islands']} islands",
            f"{storm['kept']:.3f} of the calm speed was kept; {storm['lost_commits']} commits lost",
            "`bench/storm.py`",
        ),
        (
            f"a joiner of {recovery['state_megabytes'] / 1000:g} GB of state over "
            f"{recovery['mbit_per_second']:g} Mbit/s",
            f"{recovery['join_seconds']:.1f} s, {recovery['ratio']:.2f} of what the link needs; "
            f"donors {recovery['donor_slowdown']:.1%} slower",
            "`bench/recovery.py`",
        ),
        (
            f"the coordinator is killed {killed['kills']} times (SQLite)",
            f"{killed['lost_commits']} commits lost, "
            f"a pause of {killed['pause_seconds_median']:.1f} s in the median",
            "`bench/coordinator.py`",
        ),
        (
            f"{schedules['schedules']:,} simulated schedules of faults",
            f"{schedules['violations']} violated an invariant",
            "`bench/simulate.py`",
        ),
        (
            "a training step beside `transformers`, packed windows",
            f"its tokens/s times {ratios}",
            "`bench/island.py`",
        ),
        ("the demo's held-out loss, by codec", f"{losses} nats per token", "`bench/demo.py`"),
    ]
    return table([("what", "figure", "bench"), *lines])
