"""What do mistakes in running a plan look like? 0641 to 0672."""

from __future__ import annotations

from lpc.specs.examples.example import BUILD, COMMAND, PYTHON, SHOWN, Example

RUNNING: dict[str, Example] = {
    "0641": Example(
        "A kernel that was written by hand, or by another lpc, has an argument without a meaning here.",
        '{"dtype": "float23"}',
        '{"dtype": "float32"}',
        SHOWN,
    ),
    "0642": Example(
        "The plan needs an operator that this torch does not have.",
        "a plan built with torch 2.20, run with 2.11",
        "a plan built with the torch that runs it",
        SHOWN,
    ),
    "0643": Example(
        "A kernel reads what it has not computed, or returns what it does not have.",
        '"args": [{"ref": "n9"}]      # before n9',
        '"args": [{"ref": "n8"}]',
        SHOWN,
    ),
    "0644": Example(
        "The length of an axis is no expression of whole numbers and lengths.",
        '"shape": ["B**B", 4]',
        '"shape": ["B*4", 4]',
        SHOWN,
    ),
    "0645": Example(
        "A plan that was written by hand draws noise by a law that this lpc does not have.",
        '"law": "cauchy"',
        '"law": "normal"',
        SHOWN,
    ),
    "0646": Example(
        "`noise` names a site that the plan does not have, or gives a tensor of another shape.",
        "trainer.gradients(batch, noise={'drop': torch.ones(4, 16)})",
        "trainer.gradients(batch)",
        PYTHON,
    ),
    "0647": Example(
        "A tensor of the state has another shape.",
        "trainer.load_state_dict({'fc1.bias': torch.zeros(3)}, strict=False)",
        "trainer.load_state_dict({'fc1.bias': torch.zeros(16)}, strict=False)",
        PYTHON,
    ),
    "0648": Example(
        "The state has no tensor of this name.",
        "trainer.load_state_dict({'fc1.bais': torch.zeros(16)} | trainer.state_dict())",
        "trainer.load_state_dict(trainer.state_dict())",
        PYTHON,
    ),
    "0649": Example(
        "The state has a tensor that is not given.",
        "trainer.load_state_dict({})",
        "trainer.load_state_dict({}, strict=False)",
        PYTHON,
    ),
    "0650": Example(
        "A plan that was written by hand has a schedule law that this lpc does not know; of a spec it is 0120.",
        "schedule: cosin",
        "schedule: cosine",
        SHOWN,
    ),
    "0651": Example(
        "A schedule ends with the run, and without data `epochs` do not say when that is.",
        "data: none\nrun: {epochs: 10}\nlearn: [{..., schedule: cosine}]",
        "data: none\nrun: {steps: 1000}\nlearn: [{..., schedule: cosine}]",
        SHOWN,
    ),
    "0652": Example(
        "There is no such optimizer class, or a plan may not name its package; of torch.optim's own words it is 0120.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: module("torch_optimizer:Lamb")}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: module("pytorch_optimizer:Lamb")}',
    ),
    "0653": Example(
        "An optimizer needs more than gradients, such as the loss once more.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: module("torch.optim:LBFGS")}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: module("torch.optim:Adam")}',
        BUILD,
    ),
    "0654": Example(
        "torch refuses the numbers that an optimizer is given.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(betas=[2.0, 0.9])}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam(betas=[0.9, 0.999])}',
        BUILD,
    ),
    "0655": Example(
        "A plan that was written by hand lets an optimizer step a buffer.",
        '"parameters": ["norm.running_mean"]',
        '"parameters": ["norm.weight"]',
        SHOWN,
    ),
    "0656": Example(
        "A batch is no mapping, or lacks a field that the plan loads.",
        "trainer.step({'image': batch['image']})",
        "trainer.step(batch)",
        PYTHON,
    ),
    "0657": Example(
        "A field of a batch has another dtype or shape than the plan's.",
        "trainer.step({**batch, 'label': batch['label'].float()})",
        "trainer.step(batch)",
        PYTHON,
    ),
    "0658": Example(
        "A step takes as many batches as it accumulates.",
        "trainer.step([batch, batch])",
        "trainer.step([batch])",
        PYTHON,
    ),
    "0659": Example(
        "A Kronecker factor with next to no damping is singular in the numbers of its dtype, or is not finite.",
        "optimizer: kfac(damping=1e-12)",
        "optimizer: kfac(damping=1e-2)",
        SHOWN,
    ),
    "0660": Example(
        "With `state=persistent` an optimizer of variables remembers places in a batch, as many as the first one had.",
        "the first batch has 4 samples, the second 6",
        "the first batch has 6 samples, the second 4",
        SHOWN,
    ),
    "0662": Example(
        "torch itself fails in a kernel: class 12 of 10, for example, or too little memory.",
        "trainer.step({**batch, 'label': batch['label'] + 10})",
        "trainer.step(batch)",
        PYTHON,
    ),
    "0663": Example(
        "There is no such device, or not on this machine.",
        "lpc.Trainer(plan, device='toaster')",
        "lpc.Trainer(plan, device='cpu')",
        PYTHON,
    ),
    "0664": Example(
        "The plan's kernels were captured for another kind of device only.",
        "lpc run digits.plan --device cpu      # built with run.target=cuda",
        "lpc build spec.yaml --set run.target=portable",
        SHOWN,
    ),
    "0665": Example(
        "The data have no split of this name.",
        "trainer.evaluate('validation')",
        "trainer.evaluate('test')",
        PYTHON,
    ),
    "0666": Example(
        "The plan's spec has no data, and none are given.",
        "lpc.Trainer(bare, device='cpu').evaluate()      # bare: built with `data: none`",
        "lpc.Trainer(bare, device='cpu').evaluate([batch])",
        PYTHON,
    ),
    "0667": Example(
        "One step takes more samples than an epoch has.",
        "lpc run spec.yaml --set run.accumulate=999",
        "lpc run spec.yaml --set run.accumulate=2",
        COMMAND,
    ),
    "0668": Example(
        "A plan that was written by hand has a period that this lpc does not know; of a spec it is 0120.",
        "log: often(50)",
        "log: every(50)",
        SHOWN,
    ),
    "0669": Example(
        "Event files are asked for, and the library that writes them is not installed.",
        "lpc run spec.yaml --tensorboard",
        "pip install 'lpc[track]'",
        SHOWN,
    ),
    "0673": Example(
        "A network that is split is solved for all samples at once, and a batch holds some of them.",
        "lpc run spec.yaml --set decompose.links=split --set loss=hinge --set learn=[]",
        "lpc run spec.yaml --set decompose.links=split --set loss=hinge --set learn=[] --set data.batch=2000",
        COMMAND,
    ),
    "0670": Example(
        "There is no checkpoint to resume from, or it is damaged.",
        "trainer.fit(resume=True)",
        "trainer.fit('runs/digits', resume=True)",
        PYTHON,
    ),
    "0671": Example(
        "The checkpoint in this folder was written by a run of another plan.",
        "lpc run other.plan --out runs/digits --resume",
        "lpc run other.plan --out runs/other",
        SHOWN,
    ),
    "0672": Example(
        "Stopping early needs a metric that the plan measures, on a validation split.",
        'lpc run spec.yaml --set "run.early_stop=patience(3)"',
        'lpc run spec.yaml --set "run.early_stop=patience(3)" --set data.validation=0.1',
        COMMAND,
    ),
}
