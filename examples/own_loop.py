"""Your own module and loop, elastic. `own_loop.py found DIR`, `atoll host own --dir DIR`, then `own_loop.py TICKET DIR/a`."""

import sys
from pathlib import Path

import torch

from atoll.genesis import found
from atoll.mesh import Adopt, ElasticDeviceMesh

model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-2), torch.zeros(())
weights = dict(model.named_parameters())
sys.argv[1] == "found" and sys.exit(found(Path(sys.argv[2]), "own", weights))
with ElasticDeviceMesh.join(sys.argv[1], Path(sys.argv[2])) as mesh:
    for order in mesh.swarm.orders():
        if isinstance(order, Adopt):
            mesh.swarm.adopt(order, weights)  # committed for all of us
            continue
        tokens = 0
        for first in order.samples[::32]:
            x = torch.randn(32, 4, generator=torch.Generator().manual_seed(first))
            loss = (model(x).squeeze() - x.prod(dim=1)).square().mean()
            loss.backward(), optimizer.step(), optimizer.zero_grad()
            tokens += 32
            if not mesh.swarm.progress(loss.item(), tokens=32):
                break  # the others are done
        mesh.swarm.propose(weights, tokens=tokens, loss=loss.item())
