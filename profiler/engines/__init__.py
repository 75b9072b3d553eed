"""The engines a campaign can measure, behind one interface: the project's own, and those that users run."""
