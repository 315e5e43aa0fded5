module f1-vote.lab/modules/pause

go 1.26.5
