package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server/admin/api"
)

// listApprovals gives what waits for an answer, oldest first.
func (s *Server) listApprovals(ctx context.Context, _ asker, _ struct{}) (*api.Page[api.Approval], error) {
	waiting, err := s.Gate.Approvals.List(ctx)
	if err != nil {
		return nil, err
	}
	page := &api.Page[api.Approval]{Items: []api.Approval{}}
	for _, r := range waiting {
		page.Items = append(page.Items, *approvalOf(r, false))
	}
	return page, nil
}

// approvalOf writes a request for people. What they said in their own words
// is content.
func approvalOf(r *approval.Request, content bool) *api.Approval {
	q := &r.Query
	out := &api.Approval{
		ID: r.ID, Call: r.Call, Task: q.Task.ID, Agent: q.Caller.Agent, Owner: q.Agent.Owner, User: cmp.Or(q.Caller.User, q.Task.User),
		Tool: q.Tool.Name, Tier: q.Tool.Tier, Requires: r.Requires, State: r.State, Asked: api.Time(r.Asked), Expires: api.Time(r.Expires),
	}
	for _, a := range r.Answers {
		said := api.Answer{By: a.By, Time: api.Time(a.At), Yes: a.Yes}
		if content {
			said.Reason = a.Reason
		}
		out.Answers = append(out.Answers, said)
	}
	return out
}

type approvalPath struct {
	Approval writ.ApprovalID `path:"approval" json:"-"`
}

// getApproval gives a request, and not what it is about.
func (s *Server) getApproval(ctx context.Context, _ asker, q approvalPath) (*api.Approval, error) {
	r, err := s.approval(ctx, q.Approval)
	if err != nil {
		return nil, err
	}
	return approvalOf(r, false), nil
}

// showApproval gives a request with what it is about: the very bytes that an
// answer is about, and where they came from. That it was read is on record
// before anything is shown.
func (s *Server) showApproval(ctx context.Context, a asker, q approvalPath) (*api.Approval, error) {
	r, err := s.approval(ctx, q.Approval)
	if err != nil {
		return nil, err
	}
	if err := s.recordReading(ctx, a, string(r.ID), ledger.Leaf{Call: r.Call, Task: r.Query.Task.ID, Approval: r.ID}); err != nil {
		return nil, err
	}
	out := approvalOf(r, true)
	action, err := json.Marshal(&r.Query.Action)
	if err != nil {
		return nil, err
	}
	out.Shown = &api.Shown{
		Digest: r.Query.Action.Digest(), Action: action, Provenance: r.Query.Provenance, Label: r.Query.Label,
		Purpose: r.Query.Task.Purpose, Claim: r.Query.Claim,
	}
	return out, nil
}

func (s *Server) approval(ctx context.Context, id writ.ApprovalID) (*approval.Request, error) {
	if _, err := writ.ParseID[writ.ApprovalID](string(id)); err != nil {
		return nil, writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	r, err := s.Gate.Approvals.Get(ctx, id)
	if d, ok := errors.AsType[*writ.Denial](err); ok && d.Code == writ.InvalidRequest {
		return nil, missing("there is no approval " + string(id))
	}
	return r, err
}

type answerRequest struct {
	Approval writ.ApprovalID `path:"approval" json:"-"`
	Shown    writ.Digest     `json:"shown"` // of the action that was looked at
	Reason   string          `json:"reason,omitempty"`
}

// approve says yes, for the operator who proved their key, to the action they
// were shown.
func (s *Server) approve(ctx context.Context, a asker, q answerRequest) (*api.Approval, error) {
	return s.answer(ctx, q, approval.Answer{By: a.operator.User, Key: a.operator.Key, Yes: true, Reason: q.Reason}, a.reads)
}

type denyRequest struct {
	Approval writ.ApprovalID `path:"approval" json:"-"`
	Reason   string          `json:"reason,omitempty"` // the agent is told
}

// deny says no. It needs no key: a no takes authority away.
func (s *Server) deny(ctx context.Context, a asker, q denyRequest) (*api.Approval, error) {
	r, err := s.approval(ctx, q.Approval)
	if err != nil {
		return nil, err
	}
	said := answerRequest{Approval: q.Approval, Shown: r.Query.Action.Digest()}
	return s.answer(ctx, said, approval.Answer{By: a.by(), Reason: q.Reason}, nil)
}

// answer records an answer. Who comes late is told what was decided.
func (s *Server) answer(ctx context.Context, q answerRequest, said approval.Answer, reads []ledger.Expect) (*api.Approval, error) {
	if _, err := s.approval(ctx, q.Approval); err != nil {
		return nil, err
	}
	r, err := s.Gate.Approvals.Answer(ctx, q.Approval, q.Shown, said, reads...)
	if err == nil {
		return approvalOf(r, false), nil
	}
	p := problemOf(err)
	if p.Status == http.StatusConflict {
		if r, err := s.Gate.Approvals.Get(ctx, q.Approval); err == nil {
			p.Approval = approvalOf(r, false)
		}
	}
	return nil, p
}
