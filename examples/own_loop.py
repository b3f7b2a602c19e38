"""Your own module and loop, elastic. `own_loop.py prepare DIR`, `atoll host own --dir DIR`, then `own_loop.py
TICKET DIR/a`.
"""

import sys
from pathlib import Path

import torch

from atoll.mesh import Adopt, ElasticDeviceMesh
from atoll.run.genesis import prepare_own

model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-2), torch.zeros(())
weights = dict(model.named_parameters())
if sys.argv[1] == "prepare":
    sys.exit(prepare_own(Path(sys.argv[2]), "own", weights))
with ElasticDeviceMesh.join(sys.argv[1], Path(sys.argv[2])) as mesh:
    for order in mesh.swarm.orders():
        if isinstance(order, Adopt):
            mesh.swarm.adopt(order, weights)  # committed for all of us
            continue
        tokens, going = 0, True
        while going and tokens < len(order.samples):
            x = torch.randn(32, 4, generator=torch.Generator().manual_seed(order.samples[tokens]))
            loss = (model(x).squeeze() - x.prod(dim=1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tokens += 32
            going = mesh.swarm.progress(loss.item(), tokens=32)  # else the others are done
        mesh.swarm.propose(weights, tokens=tokens, loss=loss.item())
