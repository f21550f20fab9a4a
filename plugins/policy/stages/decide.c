/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * decide: the decision tables, on a connection's first packet and after every change of policy.
 *
 * Both ends that are workloads of this node are asked here: the client's egress policy about the server, and the
 * server's ingress policy about the client. Each question is two lookups, peer → class and (class, protocol, port) →
 * verdict, after the array access that finds the workload's policies.
 */

#define SUBJECT_COMPUTED 1
#define SUBJECT_EGRESS (2 | 8)   /* enforced, or rehearsed */
#define SUBJECT_INGRESS (4 | 16)

#define ACTION_DENY 0
#define ACTION_ALLOW 1
#define ACTION_REDIRECT 2
#define ACTION_DENY_EXPLICIT 3

/* It passes, but only because somebody's policy is rehearsed. */
INLINE void LOCAL(audit)(struct F(packet) *p, const struct policy_verdict *verdict, bool egress)
{
	u32 index = 0;
	struct audit *would = audits_lookup(&index);

	if (!would)
		return;
	would->rule = verdict->audit_rule;
	would->reason = verdict->audit_action == ACTION_DENY_EXPLICIT ? REASON_POLICY_DENY : REASON_POLICY_DENIED;
	would->egress = egress;
	p->audited = true;
}

/* One direction of one workload. The rule that decided is left in `rule`, whatever it decided; in `l7`
 * what a proxy has to enforce. */
INLINE int LOCAL(ask)(struct F(packet) *p, u32 policy, u32 peer, u32 *rule, u32 *l7, bool egress)
{
	struct policy_peer who = {.policy = policy, .identity = peer};
	struct policy_port what = {};
	struct policy_verdict *verdict;
	u32 *class = policy_peers_lookup(&who);

	what.prefixlen = 64; /* class, protocol and the whole port */
	what.class = class ? *class : policy; /* a policy's number is also its class for peers that no rule names */
	what.protocol = p->tuple.protocol;
	what.port = p->service_port;
	verdict = policy_verdicts_lookup(&what);
	if (!verdict)
		return DROP(REASON_DROP_EP_NOT_READY); /* a class without a catch-all is one that is not written yet */
	*rule = verdict->rule;
	switch (verdict->action) {
	case ACTION_ALLOW:
		break;
	case ACTION_REDIRECT:
		if ((p->owed & OWED_PROXY) && p->proxy_port != verdict->proxy_port)
			return DROP(REASON_PROXY_ABSENT); /* one connection passes one proxy */
		p->owed |= OWED_PROXY;
		p->proxy_port = verdict->proxy_port;
		*l7 = verdict->l7;
		break;
	case ACTION_DENY_EXPLICIT:
		return DROP(REASON_POLICY_DENY);
	default:
		return DROP(REASON_POLICY_DENIED);
	}
	if (unlikely(verdict->audit_rule && !p->audited)) /* the first denial would have been the last */
		LOCAL(audit)(p, verdict, egress);
	if (verdict->auth > AUTH_DISABLED) {
		p->owed |= OWED_AUTH;
		if (verdict->auth > p->auth)
			p->auth = verdict->auth;
	}
	return NEXT;
}

STAGE(decide)
{
	struct policy_subject *subject;
	u32 id;
	int verdict;

	id = p->client_endpoint;
	if (id) {
		subject = policy_subjects_lookup(&id);
		if (!subject || !(subject->flags & SUBJECT_COMPUTED))
			return DROP(REASON_DROP_EP_NOT_READY);
		if (subject->flags & SUBJECT_EGRESS) {
			verdict = LOCAL(ask)(p, subject->egress, p->server_identity, &p->egress_rule, &p->egress_l7, true);
			if (verdict)
				return verdict;
		}
	}
	id = p->server_endpoint;
	if (id) {
		subject = policy_subjects_lookup(&id);
		if (!subject || !(subject->flags & SUBJECT_COMPUTED))
			return DROP(REASON_DROP_EP_NOT_READY);
		if (subject->flags & SUBJECT_INGRESS)
			return LOCAL(ask)(p, subject->ingress, p->client_identity, &p->ingress_rule, &p->ingress_l7, false);
	}
	return NEXT;
}
