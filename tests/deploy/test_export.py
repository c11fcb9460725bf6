"""A ticket that was put into a network leaves by torch.export, as any network does."""

import numpy as np
import torch

import comity as co


def test_a_ticket_is_exported_with_the_same_answers(tmp_path):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()
    net = torch.nn.Sequential(*layers, torch.nn.Linear(4 * 36, 3))
    model = co.TorchModel(net, torch.nn.functional.cross_entropy)
    params = dict(model.init(co.Round("", 0)))
    params["4.weight"] = np.where(np.abs(params["4.weight"]) > 0.05, params["4.weight"], 0).astype("float32")
    co.Ticket.of(params).save(tmp_path / "a.ticket", "float32")
    dense = co.fold(co.Ticket.load(tmp_path / "a.ticket").densify(net)).eval()
    x = torch.randn(2, 1, 8, 8)
    torch.export.save(torch.export.export(dense, (x,)), tmp_path / "a.pt2")
    again = torch.export.load(tmp_path / "a.pt2").module()
    torch.testing.assert_close(again(x), dense(x))
