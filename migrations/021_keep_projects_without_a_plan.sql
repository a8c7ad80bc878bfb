-- Why the plan of a project is not known. Such a project has the plan of a blank session in `plan`, which the previous
-- release can read and launch; NULL if the plan is known.
ALTER TABLE projects ADD COLUMN plan_problem JSONB;

-- The plan that the request for the session gave, by role: what differs from the project's own plan.
ALTER TABLE sandbox_sessions ADD COLUMN requested_plan JSONB;
