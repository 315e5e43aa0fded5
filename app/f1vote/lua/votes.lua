-- Some votes of a poll, in the order of their receipts.
-- ARGV: poll, where to go on (0 at first), how many, about.
-- Returns lines: where to go on, '' at the end; 'receipt=codes' of each vote.
local base, answer = 'poll:' .. ARGV[1] .. ':', {''}
answer[1] = walk(base, tonumber(ARGV[2]), tonumber(ARGV[3]), function(bucket)
  local fields, votes = redis.call('HGETALL', base .. 'votes:' .. bucket), {}
  for i = 1, #fields, 2 do votes[#votes + 1] = bucket .. fields[i] .. '=' .. fields[i + 1] end
  table.sort(votes)
  for _, vote in ipairs(votes) do answer[#answer + 1] = vote end
  return #votes
end)
return table.concat(answer, '\n')
