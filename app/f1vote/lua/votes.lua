-- The votes of the next shelves of a poll, in the order of their receipts.
-- ARGV: poll, number of the first shelf, most shelves, most votes (the last shelf is whole).
-- Returns lines: the number of the next shelf, '' at the end; 'receipt=codes' of each vote.
local base, at = 'poll:' .. ARGV[1] .. ':', tonumber(ARGV[2])
local last = math.min(SHELVES, at + tonumber(ARGV[3]))
local answer = {''}
while at < last and #answer <= tonumber(ARGV[4]) do
  for _, bucket in ipairs(shelf(base, at)) do
    local fields, votes = redis.call('HGETALL', base .. 'votes:' .. bucket), {}
    for i = 1, #fields, 2 do votes[#votes + 1] = bucket .. fields[i] .. '=' .. fields[i + 1] end
    table.sort(votes)
    for _, vote in ipairs(votes) do answer[#answer + 1] = vote end
  end
  at = at + 1
end
if at < SHELVES then answer[1] = tostring(at) end
return table.concat(answer, '\n')
