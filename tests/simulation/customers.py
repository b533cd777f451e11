"""Customers: they sign up, pay, stop paying, pay again, leave. One has an account that its broker does not let in."""

from __future__ import annotations

from farm.states import Goal, Kind, Status
from tests.simulation.portal import Portal
from tests.simulation.rows import Row
from tests.simulation.world import World


class Customers:
    def __init__(self, world: World, portal: Portal):
        self.world, self.portal, self.going = world, portal, portal.going
        self.number = portal.plan.customers
        self.over = False

    def begin(self) -> None:
        chance = self.world.chance
        self.portal.db.demos = [f"demo {n}" for n in range(2 * self.number)]
        for customer in range(1, self.number + 1):
            signs_up = chance.uniform(5, 60)
            self.world.at(signs_up, self.going.sign_up, customer)
            if chance.random() < 0.8:
                self.world.at(
                    signs_up + chance.choice([chance.uniform(1, 30), chance.uniform(10, 250)]), self._pay, customer
                )
        for _ in range(chance.randint(0, 4)):
            self.world.at(chance.uniform(100, self.portal.plan.lasts), self._change_mind)

    def stop(self) -> None:
        self.over = True

    def _account(self, customer: int) -> str:
        if customer == 3 and self.portal.plan.seed % 3 == 0:
            return "wrong 3"
        # Two of them give the same account: it runs once.
        return "live 1" if customer == 2 and self.portal.plan.seed % 2 else f"live {customer}"

    def _live(self, customer: int) -> Row | None:
        mine = [r for r in self.portal.db.open.values() if r.customer == customer and r.kind is Kind.LIVE]
        return max(mine, key=lambda row: row.pk, default=None)

    def _pay(self, customer: int) -> None:
        if self.over:
            return
        if self._live(customer) is None:
            self.world.happened("a customer goes live")
            self.going.go_on(customer, self._account(customer), self.going.current(customer))

    def _change_mind(self) -> None:
        if self.over:
            return
        customer = self.world.chance.randint(1, self.number)
        row = self._live(customer)
        if row is None:
            return
        if self.world.chance.random() < 0.2:
            self.world.happened("a customer leaves")
            self.going.end(row, "the customer leaves")
        elif row.status is Status.RUNNING and row.goal is Goal.RUNNING:
            self.world.happened("a payment stops")
            self.going.stop(row, "the payment stopped")
            self.world.after(self.world.chance.uniform(5, 200), self._pay_again, customer)

    def _pay_again(self, customer: int) -> None:
        row = self._live(customer)
        if row is None:
            self._pay(customer)
        elif row.goal is Goal.STOPPED:
            self.going.resume(row)
